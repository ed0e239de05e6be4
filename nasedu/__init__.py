"""nasedu: a course on neural architecture search."""
