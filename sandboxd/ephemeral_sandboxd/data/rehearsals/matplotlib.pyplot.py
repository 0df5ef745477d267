import io

import matplotlib.pyplot as plt

figure, axes = plt.subplots()
axes.plot([1, 2], [1, 4], label="a")
axes.bar([1, 2], [1, 2])
axes.set_title("a")
axes.legend()
figure.savefig(io.BytesIO(), format="png", bbox_inches="tight")
plt.close(figure)
