# `import statsmodels` alone loads next to nothing.
import numpy as np
import pandas as pd
import statsmodels.api as sm
import statsmodels.formula.api as smf
from statsmodels.tsa.arima.model import ARIMA
from statsmodels.tsa.seasonal import seasonal_decompose
from statsmodels.tsa.stattools import adfuller

frame = pd.DataFrame({"a": np.arange(24.0), "b": np.random.default_rng(0).normal(size=24)})
str(sm.OLS(frame["b"], sm.add_constant(frame["a"])).fit().summary())
str(smf.ols("b ~ a", frame).fit().summary())
