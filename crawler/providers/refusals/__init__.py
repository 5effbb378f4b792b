"""What a service says in place of an answer: whose fault it is, and when to try again."""
