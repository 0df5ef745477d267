import numpy as np
import xarray as xr

data = xr.Dataset({"a": (("x", "y"), np.ones((2, 3)))}, coords={"x": [1, 2]})
repr(data.mean("x"))
data["a"].sel(x=1)
data._repr_html_()
