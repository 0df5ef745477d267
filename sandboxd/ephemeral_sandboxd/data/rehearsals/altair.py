import altair

chart = altair.Chart(altair.Data(values=[{"a": 1, "b": 2}])).mark_bar().encode(x="a:Q", y="b:Q")
chart.to_json()
