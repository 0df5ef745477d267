# With numpy at hand, expressions are usually made functions: that imports scipy.
import sys

import sympy

x = sympy.symbols("x")
repr(sympy.solve(x**2 - 2, x))
repr(sympy.integrate(sympy.sin(x) * sympy.exp(x), x))
repr(sympy.simplify(sympy.diff(x**3 + sympy.cos(x), x)))
repr(sympy.Matrix([[1, 2], [3, 4]]).eigenvals())
sympy.latex(x**2)
if "numpy" in sys.modules:
    sympy.lambdify(x, x**2)
