# `import lxml` alone loads nothing.
from lxml import etree

etree.tostring(etree.fromstring("<a><b>1</b></a>").xpath("//b")[0])
try:
    from lxml import html
except ImportError:  # needs lxml_html_clean in some versions
    pass
else:
    html.fromstring("<p>a</p>").text_content()
