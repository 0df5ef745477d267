# `import Bio` alone loads nothing.
import io

from Bio import Align, SeqIO
from Bio.Seq import Seq

Seq("ATG").translate()
list(SeqIO.parse(io.StringIO(">a\nATG\n"), "fasta"))
