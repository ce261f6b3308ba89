"""Short plays of ours on the learner's classes and functions, one module per lesson; they hold no answer.

A script takes the learner's class or function and the inputs of a case, and returns the outputs. It runs wherever the
learner's code runs, and on the reference.
"""
