"""Nothing is lost, wherever an apply is stopped and whatever fails under it."""
