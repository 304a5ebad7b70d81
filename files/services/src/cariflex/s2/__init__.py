"""S2 (EN 50491-12-2): the customer energy manager (CEM) that resource managers of devices connect to."""
