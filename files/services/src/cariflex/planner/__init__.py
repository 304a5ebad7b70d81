"""The planner: has FlexMeasures plan all S2 devices together, and hands the plans to the CEM."""
