"""What counts as an answer: its text, its end, its thoughts, its tokens."""
