# What nltk imports when data is asked for, whether or not that data is there.
import nltk
from nltk.corpus import stopwords
from nltk.stem import PorterStemmer, WordNetLemmatizer

for ask in (
    lambda: stopwords.words("english"),
    lambda: nltk.word_tokenize("A word."),
    lambda: nltk.pos_tag(["word"]),
    lambda: WordNetLemmatizer().lemmatize("words"),
    lambda: PorterStemmer().stem("words"),
):
    try:
        ask()
    except LookupError:
        pass  # the data has to be downloaded first
for module in ("nltk.huggingface.dataset", "nltk.sentiment.vader", "encodings.idna"):
    try:
        __import__(module)
    except ImportError:
        pass  # not every version has it
