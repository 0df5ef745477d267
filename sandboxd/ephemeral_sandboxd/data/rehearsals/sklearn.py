import numpy as np
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

load_iris()
x = np.random.default_rng(0).normal(size=(40, 3))
y = (x[:, 0] > 0).astype(int)
a, b, c, d = train_test_split(x, y, random_state=0)
accuracy_score(d, make_pipeline(StandardScaler(), LogisticRegression()).fit(a, c).predict(b))
RandomForestClassifier(n_estimators=2).fit(a, c).predict(b)
r2_score(d, LinearRegression().fit(a, c).predict(b))
