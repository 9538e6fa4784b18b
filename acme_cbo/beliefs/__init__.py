"""What the data say about the causes of the target."""
