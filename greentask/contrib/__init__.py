"""What joins greentask to other things. Each module is imported only by who uses it."""
