"""How a result shows itself: tables, in a terminal and in a notebook. Imports nothing of jaxrel."""
