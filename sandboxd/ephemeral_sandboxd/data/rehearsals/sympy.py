import sympy

x = sympy.symbols("x")
repr(sympy.solve(x**2 - 2, x))
repr(sympy.integrate(sympy.sin(x) * sympy.exp(x), x))
repr(sympy.simplify(sympy.diff(x**3 + sympy.cos(x), x)))
