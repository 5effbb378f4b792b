"""Every SQL statement of the package, as plain functions on a connection, one file for each asker.

Rule: a function here never begins or ends a transaction and never reads a clock; whoever calls it
owns both.
"""
