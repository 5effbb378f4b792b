"""Reading what is asked about: the lists that people bring, and those that models write."""
