-- Prefect's database is made by the image (POSTGRES_DB); this one is MLflow's.
CREATE DATABASE mlflow OWNER cmass;
