"""Routes for large data: choosing one, and the memory that it takes."""
