import io
import sys

import xlsxwriter

book = xlsxwriter.Workbook(io.BytesIO(), {"in_memory": True})
sheet = book.add_worksheet()
sheet.write(0, 0, "a", book.add_format({"bold": True}))
chart = book.add_chart({"type": "column"})
chart.add_series({"values": "=Sheet1!$A$1:$A$2"})
sheet.insert_chart("D1", chart)
book.close()
if "pandas" in sys.modules:
    import pandas as pd

    with pd.ExcelWriter(io.BytesIO(), engine="xlsxwriter") as writer:
        pd.DataFrame({"a": [1]}).to_excel(writer)
