import sys

from bs4 import BeautifulSoup

page = "<html><body><p class='a'>b</p><table><tr><td>1</td></tr></table></body></html>"
for parser in ["html.parser"] + ["lxml"] * ("lxml.etree" in sys.modules):
    soup = BeautifulSoup(page, parser)
    soup.find_all("p", class_="a")
    soup.select("table td")
    soup.get_text()
    soup.prettify()
