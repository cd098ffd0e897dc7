// Starts Swagger UI. A file of its own, because the page's policy allows no inline script.
"use strict";

SwaggerUIBundle({
  url: "/api/docs/openapi.json",
  dom_id: "#swagger-ui",
  layout: "BaseLayout", // no bar for opening other documents
  deepLinking: true,
  tryItOutEnabled: true,
  persistAuthorization: false, // credentials stay out of localStorage
  validatorUrl: null, // the document is not sent to anyone
});
