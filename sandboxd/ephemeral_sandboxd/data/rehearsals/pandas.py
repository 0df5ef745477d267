import importlib.util
import io
import sys

import pandas as pd

frame = pd.read_csv(io.StringIO("a,b,d\nx,1,2024-01-01\ny,2,2024-01-02\nx,3.5,\n"))
frame["d"] = pd.to_datetime(frame["d"])
repr(frame)
repr(frame.groupby("a")["b"].agg(["mean", "sum"]))
repr(frame.describe())
frame.sort_values("b").merge(frame, on="a").pivot_table(index="a", values="b_x").to_string()
frame._repr_html_()
frame["b"].rolling(2).mean()
frame.set_index("d")["b"].resample("D").sum()
frame.to_json()
if "openpyxl" in sys.modules or importlib.util.find_spec("xlsxwriter"):  # the latter is its first choice, and cheap
    book = io.BytesIO()
    frame.to_excel(book)
    if "openpyxl" in sys.modules:
        book.seek(0)
        pd.read_excel(book)
if "jinja2" in sys.modules:
    frame.style.to_html()
if "matplotlib.pyplot" in sys.modules:
    plt = sys.modules["matplotlib.pyplot"]
    figure, axes = plt.subplots()
    frame["b"].plot(ax=axes)
    plt.close(figure)
