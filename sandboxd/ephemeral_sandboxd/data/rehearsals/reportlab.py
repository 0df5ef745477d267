# `import reportlab` alone loads nothing.
import io

from reportlab.lib import colors
from reportlab.lib.pagesizes import letter
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import inch
from reportlab.pdfgen import canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

page = canvas.Canvas(io.BytesIO(), pagesize=letter)
page.drawString(inch, inch, "a")
page.save()
table = Table([["a", "b"]], style=TableStyle([("GRID", (0, 0), (-1, -1), 1, colors.black)]))
SimpleDocTemplate(io.BytesIO()).build([Paragraph("a", getSampleStyleSheet()["Title"]), Spacer(1, 2), table])
