"""The feeds: bring weather, devices and prices to FlexMeasures by themselves."""
