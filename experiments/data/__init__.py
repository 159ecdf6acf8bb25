"""Where pictures, names and weights come from, and how results are recorded."""
