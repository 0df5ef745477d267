# The tokenizer of a blank pipeline: models have to be downloaded first.
import spacy

language = spacy.blank("en")
language.add_pipe("sentencizer")
list(language("A sentence. Another.").sents)
