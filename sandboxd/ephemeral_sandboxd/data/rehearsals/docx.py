
import io

from docx import Document
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.shared import Inches, Pt

document = Document()
document.add_heading("a", 0)
run = document.add_paragraph("a").add_run("b")
run.bold = True
run.font.size = Pt(12)
document.add_table(rows=1, cols=2).rows[0].cells[0].text = "a"
file = io.BytesIO()
document.save(file)
file.seek(0)
Document(file)
