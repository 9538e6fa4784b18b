"""Bounds that a statistic of random draws passes unless there is a fault.

A test that compares a statistic with what it should be uses one of them, so
that another seed, machine or version does not fail it: a right distribution is
outside about once in a million comparisons. CONTRIBUTING.md lists the tests.
"""

# Standard errors. A normal variable is further away with probability 5.7e-7.
SIGMAS = 5.0
# p-value of a test of goodness of fit.
LEAST_P = 1e-6
