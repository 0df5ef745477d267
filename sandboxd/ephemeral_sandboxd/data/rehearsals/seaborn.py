import matplotlib.pyplot as plt
import pandas as pd
import seaborn

frame = pd.DataFrame({"a": ["x", "y", "x", "y"], "b": [1, 2, 3, 5], "c": [2.0, 1.0, 4.0, 3.0]})
figure, axes = plt.subplots(1, 3)
seaborn.barplot(data=frame, x="a", y="b", ax=axes[0])
seaborn.histplot(data=frame, x="b", hue="a", kde=True, ax=axes[1])
seaborn.heatmap(frame[["b", "c"]].corr(), annot=True, ax=axes[2])
plt.close(figure)
