"""The limiter: how many calls may start now, and what answers and refusals teach. Pure."""
