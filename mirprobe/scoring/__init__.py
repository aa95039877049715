"""Pure functions of outputs, targets and counts: scores, intervals, the choice of a layer."""
