# The chart by Terraform or OpenTofu: helm provider 3, kubernetes provider 2.

terraform {
  required_version = ">= 1.6"
  required_providers {
    helm       = { source = "hashicorp/helm", version = "~> 3.0" }
    kubernetes = { source = "hashicorp/kubernetes", version = "~> 2.36" }
  }
}

variable "kubeconfig" {
  type        = string
  default     = "~/.kube/config"
  description = "The cluster to install into."
}

variable "image_repository" {
  type        = string
  default     = "registry.example/hushpod"
  description = "Where the webhook's image is; the agent's and the CSI driver's are beside it, with -agent and -csi behind the name."
}

variable "vault_address" {
  type        = string
  default     = "https://vault.example:8200"
  description = "The store."
}

provider "kubernetes" {
  config_path = var.kubeconfig
}

provider "helm" {
  kubernetes = {
    config_path = var.kubeconfig
  }
}

resource "kubernetes_namespace_v1" "hushpod" {
  metadata {
    name = "hushpod"
    labels = {
      "pod-security.kubernetes.io/enforce" = "restricted"
    }
  }
}

# The caBundle of the webhook configuration is the running webhook's alone: it is in no state, so a plan shows no drift.
resource "helm_release" "hushpod" {
  name      = "hushpod"
  namespace = kubernetes_namespace_v1.hushpod.metadata[0].name
  chart     = "../../charts/hushpod"
  # A webhook that is not ready refuses pods that ask: wait, and go back if it does not become so.
  wait    = true
  atomic  = true
  timeout = 300

  # Never a secret: values are in the state, and in a Secret of helm's.
  values = [yamlencode({
    image = { repository = var.image_repository }
    config = {
      defaultProvider = "vault"
      providers = {
        vault = {
          type    = "vault"
          address = var.vault_address
          role    = "{{namespace}}-{{service_account}}"
          allow   = [{ namespaces = ["team-*"], requests = ["secret/data/{{namespace}}/*"] }]
        }
      }
    }
  })]
}

# A workload: the annotation is a reference, so the state has no secret of it either.
resource "kubernetes_deployment_v1" "web" {
  metadata {
    name      = "web"
    namespace = "team-a"
  }
  spec {
    selector {
      match_labels = { app = "web" }
    }
    template {
      metadata {
        labels = { app = "web" }
        annotations = {
          "hushpod.dev/file.db-password" = "secret/data/team-a/db#password"
        }
      }
      spec {
        service_account_name = "web"
        container {
          name  = "web"
          image = "registry.example/web"
        }
      }
    }
  }
  # Pods that ask before it is there would be refused.
  depends_on = [helm_release.hushpod]
}
