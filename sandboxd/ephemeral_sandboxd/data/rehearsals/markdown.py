# The extensions are looked up among everything that is installed.
import markdown

markdown.markdown("# a\n\n```\nb\n```\n\n|a|\n|-|\n|b|\n", extensions=["tables", "fenced_code"])
