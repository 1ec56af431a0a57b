FROM python:3.11-slim
WORKDIR /opt/tollgate
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
USER nobody
ENV TOLLGATE_CONFIG=/etc/tollgate/tollgate.toml
CMD ["tollgate", "serve", "--host", "0.0.0.0"]
