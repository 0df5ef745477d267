import io

from openpyxl import Workbook, load_workbook
from openpyxl.chart import BarChart, Reference
from openpyxl.styles import Font

book = Workbook()
sheet = book.active
sheet.append(["a", 1])
sheet["A1"].font = Font(bold=True)
chart = BarChart()
chart.add_data(Reference(sheet, min_col=2, min_row=1, max_row=1))
sheet.add_chart(chart, "D1")
file = io.BytesIO()
book.save(file)
file.seek(0)
repr(load_workbook(file).active["A1"].value)
