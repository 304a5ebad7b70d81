"""One file a revision; append, never change."""
