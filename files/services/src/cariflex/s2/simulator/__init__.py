"""Batteries and EVs that do not exist, behind the same door as real devices. For dev and for tests."""
