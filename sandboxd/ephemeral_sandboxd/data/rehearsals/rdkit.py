# `import rdkit` alone loads nothing.
from rdkit import Chem
from rdkit.Chem import AllChem, Descriptors

molecule = Chem.MolFromSmiles("CCO")
Descriptors.MolWt(molecule)
Chem.MolToSmiles(Chem.AddHs(molecule))
