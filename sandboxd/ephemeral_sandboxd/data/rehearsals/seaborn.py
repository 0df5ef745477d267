import matplotlib.pyplot as plt
import pandas as pd
import seaborn

seaborn.barplot(data=pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}), x="a", y="b")
plt.close("all")
