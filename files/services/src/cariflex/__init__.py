"""The services of Cariflex EMS."""
