"""What the VTN and the VEN share about OpenADR 2.0b: signals with their units, and the message layer."""
