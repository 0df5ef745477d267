# What the first compilation loads.
import numba


@numba.njit
def function(a):
    return a + 1


function(1)
