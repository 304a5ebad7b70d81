"""OpenADR 2.0b VEN: polls the VTN, answers at once, and brings every value to FlexMeasures exactly once."""
