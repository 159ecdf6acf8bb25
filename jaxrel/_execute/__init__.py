"""From a plan and its rules to values whose VJP carries multipliers."""
