"""How a transformation is called: arguments, names of layers, baselines, multipliers, averages."""
