# What sklearn imports when it is given a table (narwhals), and the submodules that code asks for most.
import sys

import numpy as np
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris, make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, classification_report, r2_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

load_iris()
x = np.random.default_rng(0).normal(size=(40, 3))
y = (x[:, 0] > 0).astype(int)
a, b, c, d = train_test_split(x, y, random_state=0)
accuracy_score(d, make_pipeline(StandardScaler(), LogisticRegression()).fit(a, c).predict(b))
RandomForestClassifier(n_estimators=2, random_state=0).fit(a, c).predict(b)
r2_score(d, LinearRegression().fit(a, c).predict(b))
classification_report(d, d)
KMeans(n_clusters=2, n_init=1, random_state=0).fit(a)
if "pandas" in sys.modules:
    import pandas as pd

    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    labels = pd.Series(y)
    a, b, c, d = train_test_split(frame, labels, random_state=0)
    accuracy_score(d, make_pipeline(StandardScaler(), LogisticRegression()).fit(a, c).predict(b))
