// The API reference: Swagger UI over openapi.json, both of this service, whatever prefix a proxy put before it.

window.SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#reference",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
