# `import plotly` alone loads next to nothing; express needs pandas or its like.
import io
import sys

import plotly.graph_objects as go
from plotly.subplots import make_subplots

figure = make_subplots(rows=1, cols=2)
figure.add_trace(go.Scatter(x=[1, 2], y=[3, 4]), row=1, col=1)
figure.add_trace(go.Bar(x=[1], y=[2]), row=1, col=2)
figure.update_layout(title="a")
figure.to_json()
figure.write_html(io.StringIO(), include_plotlyjs="cdn")
if "pandas" in sys.modules:
    import pandas as pd
    import plotly.express as px

    px.line(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), x="a", y="b").to_json()
