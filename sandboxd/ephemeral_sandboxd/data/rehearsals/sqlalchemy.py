# The mapper and the dialect of SQLite.
from sqlalchemy import Column, Integer, String, create_engine

try:
    from sqlalchemy.orm import declarative_base, sessionmaker
except ImportError:  # before 1.4
    from sqlalchemy.ext.declarative import declarative_base
    from sqlalchemy.orm import sessionmaker

Base = declarative_base()


class Row(Base):
    __tablename__ = "rows"
    id = Column(Integer, primary_key=True)
    name = Column(String)


engine = create_engine("sqlite:///:memory:")
Base.metadata.create_all(engine)
session = sessionmaker(bind=engine)()
session.add(Row(name="a"))
session.commit()
session.query(Row).filter(Row.name == "a").all()
session.close()
engine.dispose()
if hasattr(Base, "registry"):
    Base.registry.dispose()
